"""What mkdocs is told of this repository: pages outside docs/, notebooks, names that no page has listed.

Links in the documents are those that work in a clone: from docs/ to `../experiments/...` and back. Here the
pages and figures of experiments and studies become part of the site, and links are made to follow them.
"""

import ast
import os
import re
from pathlib import Path

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).parent
ROOT = DOCS.parent
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md")
FOLDERS = ("experiments", "studies", "instances", "benchmark_quadratic_subset")
"""Of the root, whose pages, figures, settings and rows are part of the site."""
SHOWN = {".md", ".png", ".csv", ".txt", ".toml", ".py"}
LINK = re.compile(r"(\]\()([^)\s#]+)")


def on_files(files: Files, config) -> Files:
    """Adds experiments and studies, the pages of the repository's root, and the notebooks as pages."""
    shown = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SHOWN)
    for path in [*(ROOT / name for name in OUTSIDE), *sorted(shown)]:
        if "__pycache__" not in path.parts:
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    for path in sorted((DOCS / "notebooks").glob("*.ipynb")):
        for name, content in notebook(path):
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def notebook(path: Path):
    """A notebook as Markdown, and its figures as files beside it."""
    from nbconvert import MarkdownExporter

    text, resources = MarkdownExporter().from_filename(str(path))
    for name, content in resources["outputs"].items():
        text = text.replace(f"({name})", f"({path.stem}_{name})")
        yield f"{path.stem}_{name}", content
    yield f"{path.stem}.md", text


def on_page_markdown(markdown: str, page: Page, config, files: Files) -> str:
    """Turns links of the clone into those of the site; lists the public names that an API page lacks."""
    uri = page.file.src_uri
    outside = uri.partition("/")[0] in FOLDERS or uri in OUTSIDE
    folder = ((ROOT if outside else DOCS) / uri).parent

    def follow(link: re.Match) -> str:
        target = Path(os.path.normpath(folder / link[2]))
        if target.is_dir() and (target / "README.md").is_file():
            target /= "README.md"
        if ":" in link[2] or not target.is_file() or not target.is_relative_to(ROOT):
            return link[0]
        if target == ROOT / "README.md":
            target = DOCS / "index.md"
        place = target.relative_to(DOCS if target.is_relative_to(DOCS) else ROOT).with_suffix(
            ".md" if target.suffix == ".ipynb" else target.suffix
        )
        return link[1] + os.path.relpath(place, Path(uri).parent).replace(os.sep, "/")

    if uri.startswith("api/"):
        package = Path(uri).stem
        others = [name for name in public(package) if f"::: {package}.{name}\n" not in markdown + "\n"]
        if others:
            markdown += "\n## More\n\n" + "\n".join(f"::: {package}.{name}\n" for name in others)
    return LINK.sub(follow, markdown)


def public(package: str) -> list[str]:
    """`__all__` of a package, read from its source."""
    for node in ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return []
