"""What the commands of the command line do, a file a subject. `cli.py` gives them their names."""
