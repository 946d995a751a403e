"""Contract of a datagram engine: how a loop receives, answers and counts datagrams.

An engine is a module with one function, `run(context)`, of the same LoopContext as a stream engine
(engine/stream/contract.py); its one listener is a bound socket. It

 D1. returns only when the server stops; on DRAIN it first answers what is queued, on NOW it does
     not;
 D2. gives the service every datagram by itself, whatever was joined on the way, and sends what it
     returns as one datagram;
 D3. keeps empty datagrams, and those of `datagram_bytes_max`; one that no buffer holds is counted
     as truncated and not answered;
 D4. does not answer a peer that `access` does not allow, nor, unless `answer_any_port`, its own
     name, its own port or one below `answered_port_min`, and does not call the service; a reply of
     the service to a Unix socket without a name is counted as unanswered, too;
 D5. never waits for a peer: a reply the kernel does not take in DATAGRAM_SEND_TIMEOUT_S, or over a
     Unix socket immediately, is dropped and counted, and so is one to a Unix socket that is gone;
 D6. continues after any error that a peer or the network can cause;
 D7. counts what the kernel dropped, as far as the kernel reports it (SO_RXQ_OVFL, socket(7));
 D8. blocks and counts a reply longer than both its request and `unvalidated_reply_bytes_max`: the
     sender's address may be forged, and the server must not amplify a flood (RFC 9000, section 8);
 D9. counts the datagrams on which a Python handler failed, and continues; a native loop enters
     Python once a batch, or once for each FN_CALLS datagrams of a larger one.
"""
