"""Reports on what runs have made: tables, one page of HTML, and differences between runs."""
