"""The management API of the gateway: `/manage/v1`, its OpenAPI document and its page.

table.py        what an endpoint is; every endpoint is data
doors.py        who may manage, from where
application.py  a request on its way: credential, route, body, answer
house.py        what the endpoints work with
desk_*.py       the endpoints, by subject
openapi.py      the document, made of the same table

Nothing here is on the path of proxied calls; all of it is imported with the first request for it.
"""

from __future__ import annotations
