"""Shows the section `Example:` of a docstring as code, as `Examples:` is."""

import griffe


class Examples(griffe.Extension):
    """Renames the section."""

    def on_object(self, *, obj, **_):
        """Is called for every class, function and attribute."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = text.replace("Example:\n", "Examples:\n")
