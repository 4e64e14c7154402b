"""Files as people have them, made by hand: a PDF needs no more than a few objects."""

from __future__ import annotations

from pathlib import Path

HANDBOOK = """\
# Handbook of the Lantern Society

The society was founded in Bergen in 1911 by seven lighthouse keepers. Its archive burned in 1923.

## Membership

A member may leave at any time; the notice period is six weeks. The annual fee is forty crowns, and it is due
on the first of March. Whoever keeps a light at sea pays nothing.

## Meetings

The society meets in the old customs house on the first Tuesday of every month. Dogs are welcome; parrots are
not, since the incident of 1954.
"""


def write_pdf(path: Path, pages: list[str]) -> Path:
    """A PDF of these pages, a line of text each; an empty one has no text."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        escaped = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
        stream = f"BT /F1 12 Tf 72 720 Td ({escaped}) Tj ET" if text else ""
        objects += [
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * number} 0 R >>",
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    body, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    body += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    body += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\n"
    body += f"startxref\n{body.index('xref')}\n%%EOF\n"
    path.write_bytes(body.encode("latin-1"))
    return path
