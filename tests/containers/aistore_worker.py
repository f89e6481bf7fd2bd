"""A transformer as AIStore's own images have it: AIStore's server class, served by uvicorn. It knows nothing of us."""

from aistore.sdk.etl.webserver.fastapi_server import FastAPIServer


class Swapcase(FastAPIServer):
    def transform(self, data, _path, etl_args):
        return data.swapcase() + etl_args.encode()


fastapi_server = Swapcase(port=8000)
fastapi_app = fastapi_server.app
