"""The buttons that narrow a page down."""

from collections.abc import Sequence

from fttune.analysis.facets import Facets
from fttune.analysis.legend import marker
from fttune.analysis.markup import plain


def filters(facets: Facets) -> str:
    """Buttons that narrow figures and lists down; without a script there is nothing to narrow."""
    groups = "".join(
        f"<fieldset><legend>{plain(title)}</legend>{_choices(title, values, facets)}</fieldset>"
        for title, values in facets.values.items()
        if len(values) > 1
    )
    return (
        '<details id="filters" hidden><summary>Narrow down <span id="narrowed">everything is shown</span></summary>'
        "<form><p>Nothing ticked in a group: all of it. Figures, averages and lists follow; verdicts and tables rest on"
        f' everything.</p>{groups}<button type="button">Show everything</button></form></details>'
    )


def _choices(title: str, values: Sequence[str], facets: Facets) -> str:
    group = list(facets.values).index(title)
    return "".join(
        f'<label><input type="checkbox" name="{group}" value="{place}">'
        f"{marker(value, facets) if title == 'Dataset' else ''}<span>{plain(value)}</span></label>"
        for place, value in enumerate(values)
    )
