"""Which site a DICOM peer belongs to, and what that site calls things: one YAML file for all sites.

    hospital_a:
      ae_titles: [PACS_A, CT01]        # calling AE titles that send for this site
      called: ASDEG_A                  # only when they call us by this title (default: by any)
      hosts: [10.1.0.0/16]             # only from these addresses (default: from any)
      label_map: totalsegmentator-ct   # what the site's segment names mean: a shipped map, or a .yaml beside this file
      sequences: [ct, t2_sag, stir_sag]    # what is looked for in its studies (default: the paper's four)

An AE title is no secret: name the hosts too, or ask for TLS certificates. STOW-RS needs no entry here; there the
key says the site.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from feature_store.errors import SettingsError
from feature_store.vocabulary import PAPER_SEQUENCES, SEQUENCE_PATTERN
from pipelines.cases.broken_rules import broken_rule, key_path
from pipelines.cases.label_map import YAML, LabelMap, read_label_map, shipped_label_map
from pipelines.cases.label_meaning import Strict
from pipelines.cases.strict_yaml import read_strict_yaml

AeTitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[!-~]([ -~]*[!-~])?$")]


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise ValueError("must be an address or a network such as 10.1.0.0/16") from None
    return value


def _sequence(value: str) -> str:
    if not SEQUENCE_PATTERN.match(value):
        raise ValueError("must be lower case letters, digits and _, such as ct or stir_sag")
    return value


class _Entry(Strict):
    ae_titles: list[AeTitle] = Field(default_factory=list)
    called: AeTitle | None = None
    hosts: list[Annotated[str, AfterValidator(_network)]] = Field(default_factory=list)
    label_map: str | None = None
    sequences: list[Annotated[str, AfterValidator(_sequence)]] = Field(default_factory=lambda: list(PAPER_SEQUENCES))


@dataclass(frozen=True)
class DicomSite:
    """What is known of one site's DICOM. ``label_map`` is asked before the words and codes that everybody knows."""

    name: str
    ae_titles: tuple[str, ...] = ()
    called: str | None = None
    hosts: tuple[str, ...] = ()
    label_map: LabelMap | None = None
    sequences: tuple[str, ...] = PAPER_SEQUENCES

    def sends_as(self, calling: str, called: str, address: str) -> bool:
        """Whether a peer of these titles at this address sends for the site."""
        if calling not in self.ae_titles or (self.called is not None and called != self.called):
            return False
        if not self.hosts:
            return True
        peer = ipaddress.ip_address(address.split("%")[0])
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped:
            peer = peer.ipv4_mapped
        return any(peer in ipaddress.ip_network(host) for host in self.hosts)


@dataclass(frozen=True)
class DicomSites:
    """All sites of the file; one that is not in it has the defaults and no C-STORE."""

    sites: dict[str, DicomSite] = field(default_factory=dict)

    def named(self, name: str) -> DicomSite:
        """The site of that name."""
        return self.sites.get(name) or DicomSite(name)

    def of(self, calling: str, called: str, address: str) -> DicomSite | None:
        """The one site a peer sends for; None where it is nobody's."""
        found = [site for site in self.sites.values() if site.sends_as(calling, called, address)]
        return found[0] if len(found) == 1 else None

    @classmethod
    def read(cls, path: Path) -> DicomSites:
        """Raises SettingsError for a key that is not known, a wrong value, or two sites that cannot be told apart."""
        raw = read_strict_yaml(path, SettingsError, path.name)
        sites = {name: _site(str(name), entry, path) for name, entry in raw.items()}
        _check_apart(list(sites.values()), path.name)
        return cls({str(name): site for name, site in sites.items()})


def _site(name: str, raw: Any, path: Path) -> DicomSite:
    try:
        entry = _Entry.model_validate({} if raw is None else raw)
    except ValidationError as thrown:
        fault = thrown.errors(include_url=False, include_input=False, include_context=False)[0]
        where = key_path((name, *fault["loc"]))
        raise SettingsError(
            f"{where} {broken_rule(fault['type'], fault['msg'])}.", action="Mend that key.", file=path.name
        ) from None
    named = entry.label_map
    label_map = None
    if named is not None:
        label_map = read_label_map(path.parent / named) if named.endswith(YAML) else shipped_label_map(named)
    return DicomSite(
        name, tuple(entry.ae_titles), entry.called, tuple(entry.hosts), label_map, tuple(dict.fromkeys(entry.sequences))
    )


def _check_apart(sites: list[DicomSite], file: str) -> None:
    for i, one in enumerate(sites):
        for other in sites[i + 1 :]:
            shared = set(one.ae_titles) & set(other.ae_titles)
            apart = one.called is not None and other.called is not None and one.called != other.called
            networks = [[ipaddress.ip_network(host) for host in site.hosts] for site in (one, other)]
            if all(networks):
                apart |= not any(a.version == b.version and a.overlaps(b) for a in networks[0] for b in networks[1])
            if shared and not apart:
                raise SettingsError(
                    f"two sites share the AE title {min(shared)} and cannot be told apart.",
                    action="Give each a `called` title or `hosts` of its own.",
                    file=file,
                )
