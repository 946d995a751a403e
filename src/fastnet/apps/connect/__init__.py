"""Programs that talk to a server for a user: each reads what the user gives, and shows what the
server says.
"""
