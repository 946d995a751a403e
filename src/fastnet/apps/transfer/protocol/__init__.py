"""Wire format of fastnet/1: frames, entries, manifest, plan, handshake, transcript."""
