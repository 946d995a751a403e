"""Applications, each a folder with the same stems.

wire, client_protocol, client, server_protocol, server; what is its own stands beside them.
"""
