"""Group chat over UDP: `fastnet chat serve` and `fastnet chat join`.

wire.py      textbook datagrams and those of chat/1; what may appear on a screen
hall.py      the server: who is online, and who gets what; no socket
sealed.py    a key: what stands between the socket and the hall, and what a member does; no socket
elsewhere.py the hall among others: what goes to a backplane and comes from it; no socket
backplane/   an axis: what joins servers
members.py   who is in a hall, and what is counted there
server.py    the hall on a socket
talking.py   the client's side of chat/1; no socket
client.py    a socket and standard input around it
output.py    where events are shown: lines, JSON, or a screen
screen.py    the screen: keys in, rows out; layout.py: text in columns; terminal.py: the terminal around them
"""
