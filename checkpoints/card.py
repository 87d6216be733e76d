"""The model card: README.md with the front matter that the Hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

# Stands in the usage snippet until the repository is known; `name_repo` replaces it.
REPO_PLACEHOLDER = "owner/name"
MAX_CELL_CHARACTERS = 200
MAX_TAGS = 32
# What the Hub accepts as `license`, of those that tokenizers come under; else it is "other", with a name.
HUB_LICENCES = frozenset(
    {
        "apache-2.0",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc-by-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-4.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "gpl-3.0",
        "lgpl-3.0",
        "mit",
        "mpl-2.0",
        "openrail",
        "unlicense",
    }
)
_LABELS = {
    "modality": "Signal",
    "sample_rate_hz": "Sample rate (Hz)",
    "channels": "Channels",
    "max_tokens": "Tokens per item, at most",
    "token_rate_hz": "Tokens per second",
    "codebook_sizes": "Codebook sizes",
    "latent_dim": "Latent dimension",
    "roles": "Codebook roles",
    "nested": "Nested along",
    "keeps": "Legal counts",
    "is_adaptive": "Adaptive length",
    "is_causal": "Causal",
    "is_lossless": "Lossless",
    "has_decoder": "Decoder",
    "takes_captions": "Takes captions",
    "draws_noise": "Draws noise",
    "fingerprint": "Fingerprint",
}
_INPUTS = {"image": "images", "audio": "waveforms", "text": "sentences"}


def model_card(
    facts: Mapping[str, Any],
    *,
    provenance: str | None = None,
    licence: str | None = None,
    repo: str | None = None,
    revision: str | None = None,
    tags: Sequence[str] = (),
) -> str:
    """The text of README.md.

    facts       plain values, as `Facts.to_dict` gives them; unknown keys are shown under their own name
    provenance  where the weights come from, in a sentence or as a Hub id
    licence     of the weights; by default the one in the facts
    repo        "owner/name", when known; `push` fills it in otherwise, and the sha of the commit
    revision    a sha to pin in the snippet; without one the card says how to pin
    tags        for the Hub, beside "tokenzoo" and "<modality>-tokenization"

    Every value is bounded and escaped, so that no name or licence breaks the table or smuggles in HTML.
    """
    modality = str(facts.get("modality", ""))
    licence = licence or facts.get("licence")
    name = escaped(facts.get("name") or "Tokenizer")
    sections = [
        _front_matter(modality, licence, provenance, tags),
        f"# {name}",
        f"A tokenizer of {_INPUTS.get(modality, 'signals')}, in the layout of tokenzoo.",
        _facts_table(facts),
        _usage(modality, repo or REPO_PLACEHOLDER, revision, bool(facts.get("has_decoder", True))),
        f"## Licence\n\n{escaped(licence or 'Not stated')} (the weights).",
        f"## Provenance\n\n{escaped(provenance or 'Not stated')}",
    ]
    return "\n\n".join(sections) + "\n"


def name_repo(card: str, repo: str, revision: str) -> str:
    """The card with `repo` at a commit in its usage snippet, neither known when the card was written."""
    return card.replace(_load_line(REPO_PLACEHOLDER, None), _load_line(repo, revision))


def pinned_revision(card: str, repo: str) -> str | None:
    """The sha that the snippet of a card names, None without one."""
    match = re.search(rf'tokenzoo\.load\("{re.escape(repo)}@([0-9a-f]{{40}})"\)', card)
    return None if match is None else match[1]


def _front_matter(modality: str, licence: object, provenance: str | None, tags: Sequence[str]) -> str:
    """YAML; every string is written as JSON, which YAML reads too."""
    lines = ["---", "library_name: tokenzoo"]
    if licence:
        slug = re.sub(r"[^a-z0-9.]+", "-", str(licence).lower()).strip("-.")[:64] or "other"
        if slug in HUB_LICENCES:
            lines.append(f"license: {slug}")
        else:
            lines += ["license: other", f"license_name: {json.dumps(slug)}"]
    base = re.fullmatch(r"([\w.-]+/[\w.-]+)@[0-9a-f]{40}", provenance or "", re.ASCII)
    if base:  # loaded from the Hub; a folder has no sha
        lines.append(f"base_model: {json.dumps(base[1])}")
    kept = dict.fromkeys(_tag(tag) for tag in ("tokenzoo", f"{modality}-tokenization", *tags))
    lines += ["tags:", *(f"- {json.dumps(tag)}" for tag in list(kept)[:MAX_TAGS] if tag), "---"]
    return "\n".join(lines)


def _facts_table(facts: Mapping[str, Any]) -> str:
    rows = ["| | |", "|---|---|"]
    shown = {key: value for key, value in facts.items() if key not in ("name", "licence", "revision")}
    for key, value in sorted(shown.items(), key=lambda item: [*_LABELS, item[0]].index(item[0])):
        rows.append(f"| {_LABELS.get(key) or escaped(key)} | {escaped(value)} |")
    return "\n".join(rows)


def _usage(modality: str, repo: str, revision: str | None, has_decoder: bool) -> str:
    items = _INPUTS.get(modality, "items")
    lines = [
        "import tokenzoo",
        "",
        f"tokenizer = {_load_line(repo, revision)}",
        f"tokens = tokenizer.encode({items})",
    ]
    if has_decoder:
        lines.append(f"{items} = tokenizer.decode(tokens)")
    return "\n".join(["## Use", "", "```python", *lines, "```"])


def _load_line(repo: str, revision: str | None) -> str:
    note = "" if revision else "  # for results that stay, write a commit's sha for main"
    name = json.dumps(f"{repo}@{revision or 'main'}")
    return f"tokenzoo.load({name}){note}"


def _tag(text: str) -> str:
    return re.sub(r"[^a-z0-9.:]+", "-", text.lower()).strip("-")[:64]


def escaped(value: object, most: int = MAX_CELL_CHARACTERS) -> str:
    """One line of Markdown that shows the value as it is, at most so many characters of it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        items = [str(item) for item in value]
        value = f"{len(items)} x {items[0]}" if len(items) > 1 and len(set(items)) == 1 else ", ".join(items)
    text = " ".join(str(value).split())
    if len(text) > most:
        text = text[: most - 1] + "…"
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", text)
