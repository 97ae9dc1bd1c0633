"""Engines: where the items of a queue lie. One module each, behind the names in `interface`;
`segq.connect` chooses by address.
"""
