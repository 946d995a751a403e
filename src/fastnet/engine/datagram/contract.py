"""What a datagram loop is: the answer to "one at a time, or batches?".

It is a module with one function, `run(work)`, of the same Work as an engine
(engine/stream/contract.py); its one listener a bound socket. It

 D1. returns only when the server stops; on DRAIN it first answers what is queued, on NOW it does
     not;
 D2. gives the service every datagram by itself, whatever was joined on the way, and sends what it
     returns as one datagram;
 D3. keeps empty datagrams, and those of `datagram_bytes_max`; one that no buffer holds is counted
     as truncated and not answered;
 D4. does not answer a peer that `access` does not allow, nor, unless `answer_any_port`, its own
     name, its own port or one below 1024, and does not ask the service; what the service says to a
     Unix socket without a name is as unanswered;
 D5. never waits for a peer: a reply the kernel does not take in DATAGRAM_SEND_TIMEOUT_S, or over a Unix
     socket at once, is dropped and counted, and so is one to a Unix socket that is gone;
 D6. goes on after any error that a peer or the network can cause;
 D7. counts what the kernel dropped, as far as the kernel tells (SO_RXQ_OVFL, socket(7));
 D8. withholds and counts a reply longer than both its request and `unvalidated_reply_bytes_max`:
     who asks may have forged the sender, and must not be able to multiply a flood;
 D9. counts the datagrams on which a Python handler failed, and goes on; a native loop enters Python
     once a batch, or once for each FN_CALLS datagrams of a larger one.
"""
