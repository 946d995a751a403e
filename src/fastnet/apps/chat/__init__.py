"""Group chat over UDP: `fastnet chat serve` and `fastnet chat join`.

wire.py             datagrams of the textbook protocol and of chat/1; sanitized text
server_protocol.py  sans-I/O server: membership, rooms, message distribution
delivery.py         event queue of one member: window, acknowledgements, retransmission
members.py          member records, message history, statistics
authentication.py   datagrams with a MAC, for servers and clients that share a key; sans-I/O
federation.py       messages and presence exchanged with other servers; sans-I/O
backplane/          what joins servers: one file a backplane
server.py           the server protocol on a socket
client_protocol.py  sans-I/O client of chat/1
client.py           the client protocol on a socket, with input and a user interface
ui/                 user interfaces: lines, JSON, or a full screen
"""
