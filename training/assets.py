"""Fonts, drawings and words: where they come from, under which licence, and how they get here.

`python -m training.assets` installs the Debian packages, fetches the npm packages, renders every drawing once and
writes all of it to `training/runs/assets` (not in git) with a list of licences. Families marked `test` are never
shown in training.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from training.lists import EMOJI

ROOT = Path(__file__).parent / "runs" / "assets"  # all that drawing needs, so that it can be copied elsewhere
PACKAGES = Path(__file__).parent / "runs" / "packages"
WORDS = Path("/usr/share/dict/american-english")
DRAWING_PIXELS = 128

DEBIAN_PACKAGES = ("fonts-dejavu-core", "fonts-liberation", "fonts-noto-core", "fonts-noto-color-emoji",
                   "librsvg2-bin", "wamerican")
DEBIAN_FONTS = {
    "dejavu": ("train", "/usr/share/fonts/truetype/dejavu", ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf",
               "DejaVuSerif.ttf", "DejaVuSansMono.ttf")),
    "liberation-sans": ("train", "/usr/share/fonts/truetype/liberation", ("LiberationSans-Regular.ttf",
                        "LiberationSans-Bold.ttf")),
    "liberation-serif": ("train", "/usr/share/fonts/truetype/liberation", ("LiberationSerif-Regular.ttf",
                         "LiberationSerif-Italic.ttf")),
    "liberation-mono": ("test", "/usr/share/fonts/truetype/liberation", ("LiberationMono-Regular.ttf",)),
    "noto-sans": ("train", "/usr/share/fonts/truetype/noto", ("NotoSans-Regular.ttf", "NotoSans-Bold.ttf")),
    "noto-serif": ("test", "/usr/share/fonts/truetype/noto", ("NotoSerif-Regular.ttf", "NotoSerif-Bold.ttf")),
}
TRAIN_FAMILIES = (
    "abel", "alegreya", "alegreya-sans", "aleo", "alfa-slab-one", "amatic-sc", "anonymous-pro", "archivo", "arvo",
    "asap", "audiowide", "bangers", "barlow", "bitter", "bree-serif", "bungee", "cabin", "cardo", "catamaran",
    "caveat", "comfortaa", "comic-neue", "coming-soon", "concert-one", "cormorant-garamond", "courier-prime",
    "covered-by-your-grace", "crete-round", "crimson-text", "dm-sans", "domine", "dosis", "eb-garamond", "exo-2",
    "fira-mono", "fira-sans", "fredoka", "gelasio", "gloria-hallelujah", "handlee", "hind", "inconsolata",
    "indie-flower", "inter", "jetbrains-mono", "josefin-sans", "josefin-slab", "kalam", "karla", "lato",
    "libre-baskerville", "libre-franklin", "lilita-one", "lobster", "lora", "luckiest-guy", "manrope", "montserrat",
    "mulish", "neucha", "noticia-text", "nunito", "old-standard-tt", "orbitron", "oswald", "overpass", "oxygen",
    "passion-one", "patrick-hand", "patua-one", "permanent-marker", "playfair-display", "poppins", "pt-serif",
    "quicksand", "raleway", "roboto", "roboto-slab", "rock-salt", "rokkitt", "rubik", "russo-one", "schoolbell",
    "shadows-into-light", "share-tech-mono", "short-stack", "signika", "source-code-pro", "source-sans-3",
    "source-serif-4", "space-mono", "special-elite", "spectral", "tinos", "titillium-web", "varela-round", "vollkorn",
    "work-sans",
)
TEST_FAMILIES = ("open-sans", "merriweather", "ibm-plex-mono", "architects-daughter", "righteous", "pt-sans",
                 "baloo-2", "zilla-slab")
DRAWING_STYLES = {  # style -> (split, npm package or Debian)
    "noto": ("train", "debian:fonts-noto-color-emoji"),
    "noto-old": ("train", "@iconify-json/noto-v1"),
    "fluent-flat": ("train", "@iconify-json/fluent-emoji-flat"),
    "fluent-3d": ("train", "@lobehub/fluent-emoji-3d"),
    "emojione": ("train", "@iconify-json/emojione"),
    "firefox": ("train", "@iconify-json/fxemoji"),
    "streamline": ("train", "@iconify-json/streamline-emojis"),
    "twemoji": ("test", "@iconify-json/twemoji"),
}
NAMES = "@iconify-json/noto"  # its names are used for packages that list no code points
NOTO_FILE = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"


@dataclass(frozen=True)
class Assets:
    """Paths of everything that one split may draw with."""

    fonts: tuple[str, ...]
    drawings: dict[str, tuple[str, ...]]  # name -> picture files, one a style
    words: tuple[str, ...]


def fetch_package(name: str) -> Path:
    """Unpack one npm package below `PACKAGES` and return its folder."""
    target = PACKAGES / name.replace("/", "+")
    if (target / "package").is_dir():
        return target / "package"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", name, "--silent"], cwd=folder, check=True, capture_output=True)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            archive.extractall(target, filter="data")
    return target / "package"


def copy_fonts(files: list[Path]) -> list[str]:
    """Copy font files below `ROOT` and return their paths there."""
    (ROOT / "fonts").mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, ROOT / "fonts" / file.name)
    return [f"fonts/{file.name}" for file in files]


def fetch_family(family: str) -> dict[str, object]:
    """The font files and licence of one family: regular, and bold where there is one."""
    package = fetch_package(f"@fontsource/{family}")
    files = [package / "files" / f"{family}-latin-{weight}-normal.woff2" for weight in (400, 700)]
    found = copy_fonts([file for file in files if file.exists()])
    licence = json.loads((package / "metadata.json").read_text())["license"]
    kind = licence["type"] if isinstance(licence, dict) else str(licence)
    return {"files": found, "licence": kind, "source": f"npm @fontsource/{family}"}


def render_svg(body: str, box: tuple[float, float, float, float], target: Path) -> None:
    """Draw an icon's SVG body to a square PNG."""
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
           f'viewBox="{box[0]} {box[1]} {box[2]} {box[3]}">{body}</svg>')
    size = str(DRAWING_PIXELS)
    subprocess.run(["rsvg-convert", "-w", size, "-h", size, "-o", str(target)], input=svg.encode(), check=True)


def icon_names(listed: dict[str, str], code: str) -> list[str]:
    """What packages may call a code point: a listed name, Unicode's own, or either written as one word or numbered."""
    names = [listed[key] for key in (code, f"{code}-fe0f") if key in listed]
    names.append(unicodedata.name(chr(int(code, 16))).lower().replace(" ", "-"))
    return [*names, *(name.replace("-", "") for name in names), *(f"{name}-1" for name in names)]


def draw_icons(package: Path, target: Path) -> None:
    """Render the drawings of an icon package (iconify's JSON) to PNG, those that it has."""
    icons = json.loads((package / "icons.json").read_text())
    naming = package if (package / "chars.json").exists() else fetch_package(NAMES)
    listed, aliases = json.loads((naming / "chars.json").read_text()), icons.get("aliases", {})
    for name, code in EMOJI.items():
        known = [key for key in icon_names(listed, code) if key in icons["icons"] or key in aliases]
        out = target / f"{name}.png"
        if out.exists() or not known:
            continue
        key = known[0]
        while key in aliases:
            key = aliases[key]["parent"]
        icon = icons["icons"][key]
        box = (icon.get("left", 0), icon.get("top", 0), icon.get("width", icons.get("width", 16)),
               icon.get("height", icons.get("height", 16)))
        render_svg(icon["body"], box, out)


def draw_noto(target: Path) -> None:
    """Render the drawings of Debian's Noto Color Emoji to PNG."""
    font = ImageFont.truetype(NOTO_FILE, 109)
    for name, code in EMOJI.items():
        character = chr(int(code, 16))
        picture = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
        ImageDraw.Draw(picture).text((10, 10), character, font=font, embedded_color=True)
        box = picture.getbbox()
        if box is None:
            continue
        square(picture.crop(box)).save(target / f"{name}.png")


def square(picture: Image.Image) -> Image.Image:
    """The picture centred on a transparent square and scaled to the common size."""
    side = max(picture.size)
    canvas = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return canvas.resize((DRAWING_PIXELS, DRAWING_PIXELS), Image.Resampling.LANCZOS)


def draw_webp(package: Path, target: Path) -> None:
    """Convert the drawings of a package of WebP files to PNG."""
    for name, code in EMOJI.items():
        for stem in (code, f"{code}-fe0f"):
            file = package / "assets" / f"{stem}.webp"
            if file.exists():
                square(Image.open(file).convert("RGBA")).save(target / f"{name}.png")


def draw_style(style: str) -> None:
    """Render one style's drawings below `ROOT/drawings/style`."""
    target = ROOT / "drawings" / style
    target.mkdir(parents=True, exist_ok=True)
    source = DRAWING_STYLES[style][1]
    if source.startswith("debian:"):
        draw_noto(target)
    elif style == "fluent-3d":
        draw_webp(fetch_package(source), target)
    else:
        draw_icons(fetch_package(source), target)


def install() -> None:
    """Install and render everything, and write the list `assets.json`."""
    subprocess.run(["apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["apt-get", "install", "-y", "-q", *DEBIAN_PACKAGES], check=True, stdout=subprocess.DEVNULL)
    families = {}
    for split, names in (("train", TRAIN_FAMILIES), ("test", TEST_FAMILIES)):
        for family in names:
            families[family] = fetch_family(family) | {"split": split}
    for family, (split, folder, files) in DEBIAN_FONTS.items():
        copied = copy_fonts([Path(folder) / file for file in files])
        families[family] = {"files": copied, "split": split, "source": "Debian"}
    for style in DRAWING_STYLES:
        draw_style(style)
    shutil.copyfile(WORDS, ROOT / "words.txt")
    (ROOT / "assets.json").write_text(json.dumps(families, indent=1))


@cache
def load_assets(split: str) -> Assets:
    """What pictures of a split may use. Words are divided by their letters, so that test words are never trained."""
    listing = ROOT / "assets.json"
    if not listing.exists():
        raise FileNotFoundError(f"no {listing}: run `python -m training.assets` first")
    families = json.loads(listing.read_text())
    fonts = tuple(str(ROOT / file) for family in sorted(families) if families[family]["split"] == split
                  for file in families[family]["files"])
    styles = [style for style, (of, _) in DRAWING_STYLES.items() if of == split]
    candidates = {name: [ROOT / "drawings" / style / f"{name}.png" for style in styles] for name in EMOJI}
    drawings = {name: tuple(str(file) for file in files if file.exists()) for name, files in candidates.items()}
    lines = (ROOT / "words.txt").read_text().split()
    words = [word for word in lines if 2 <= len(word) <= 8 and word.isascii() and word.isalpha() and word.islower()]
    held = {word for word in words if sum(map(ord, word)) % 10 < 2}
    chosen = tuple(word for word in words if (word in held) == (split == "test"))
    return Assets(fonts, {name: files for name, files in drawings.items() if files}, chosen)


if __name__ == "__main__":
    install()
