"""A pytest plugin for suites that know their server by a fixed address: loaded in their own
environments with `-p pointed`, it points them at the server in $SUITE_ENDPOINT, HOST:PORT."""

import os

import pytest

HOST, _, PORT = os.environ["SUITE_ENDPOINT"].rpartition(":")

try:
    import aetcd
except ImportError:
    from etcetra import EtcdClient, HostPortPair

    # etcetra's own conftest, which starts a container, isn't in its sdist.
    @pytest.fixture
    async def etcd():
        client = EtcdClient(HostPortPair(HOST, int(PORT)))
        yield client
        async with client.connect() as communicator:
            await communicator.delete_prefix("/")
else:
    # One test makes a client without saying of what.
    whole = aetcd.Client.__init__

    def start(self, host=HOST, port=int(PORT), **options):
        whole(self, host=host, port=port, **options)

    aetcd.Client.__init__ = start
