"""A module that cannot be imported: the tool has to live with it."""

raise RuntimeError("this plugin is broken on purpose")
