"""Remote commands over UDP: `fastnet exec serve` and `fastnet exec run`.

    wire.py      the datagrams, byte by byte; no socket
    keys.py      who may ask: the file of secrets
    policy.py    what may run: the allow file
    replay.py    what was asked before: nonces in a file that outlives the server
    runner.py    one command: processes, time, output
    orphans.py   what a command left behind
    desk.py      the server's judgement: a datagram in, datagrams out; no socket
    server.py    a socket, the commands and signals around the desk
    asking.py    the client's side of one command; no socket
    client.py    a socket around it

The rate of remote commands is small and everything else about them matters more than speed, so this
is plain Python in one thread, outside the tables of engines.
"""
