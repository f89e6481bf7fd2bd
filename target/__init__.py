"""The node that reads objects and runs ETLs beside them. It knows no gateway and no client.

Its public face is `service`, `answer`, `app`, `respond`, `errors`, `store.base`, `etl.plan` and `etl.registry`.
"""
