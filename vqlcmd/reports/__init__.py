"""What runs have made, for people to read: tables, one page of HTML, and what differs between runs."""
