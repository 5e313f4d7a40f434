"""A real, tiny installed package: a module and the metadata that pip would write beside it."""


def distribution(folder, name, entries, source=""):
    """Install `name` into a folder.

    Args:
        folder: on `sys.path`.
        name: of the package and of its one module.
        entries: text of its `entry_points.txt`.
        source: of the module.
    """
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entries)
