"""
The protocol as a model that is checked exhaustively: every order of calls, death at each, every fault, up to a size.

- `invocation.py`: the protocol, as what one invocation asks of AWS. Read it first.
- `calls.py`: the calls that it makes, and what lies in the table and in the bucket.
- `aws.py`: what AWS, the network, time and consumers may do at each call.
- `programs.py`: how a program is gone back to.
- `explorer.py`: goes through all that may happen, and tells the shortest history that goes wrong.
- `words.py`: the sentences of which a history is made.
- `mutants.py`: the protocol with one thing wrong in each.

`tests/guarantee/test_protocol_model.py` says how large it is checked.

Not modelled: records of today that the TTL deletes (it is longer than a message can come back), a bucket without
versions, messages of several objects, overwritten objects, what is parsed and packed. Where a request for many members
is not answered, that is a fault for each of them here. The handler is more careful than the model in one place: a
refusal of a second attempt of the put is looked for as well (`clients.py`); the model believes it.
"""
