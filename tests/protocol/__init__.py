"""
The protocol as a model that is checked exhaustively: every order of calls, every fault, up to a size.

- `invocation.py`: the protocol, as what one invocation asks of AWS. Read it first.
- `aws.py`: what AWS, the network, time and consumers may do at each of its calls.
- `explorer.py`: goes through all that may happen, and tells the shortest history that goes wrong.
- `words.py`: the sentences of which a history is made.

`tests/test_protocol_model.py` says how large it is checked, and takes each invariant away once.
"""
