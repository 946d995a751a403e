from dataclasses import dataclass
@dataclass(frozen=True)
class TlsOptions:
    cert: str|None=None
    key: str|None=None
    ca: str|None=None
    fingerprint: str|None=None
CURE=""
def secure(*a): raise NotImplementedError
