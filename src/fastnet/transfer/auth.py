import hashlib, hmac, os
NONCE_BYTES=32
def nonce(): return os.urandom(32)
def proof(token, role, mine, theirs, binding): return hmac.new(token, role.encode()+mine+theirs+binding, hashlib.sha256).digest()
def same(a,b): return hmac.compare_digest(a,b)
def read_token(p): return open(p,'rb').read().rstrip(b"\n")
