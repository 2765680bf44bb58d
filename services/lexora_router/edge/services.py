"""Both services of the contract over one guard: what a transport serves."""

from typing import Any, NoReturn

from lexora.v1 import call_pb2
from lexora_contract.port import CallContext, Options
from lexora_contract.rpcs import HEALTH, ROUTER, RPCS, Rpc
from lexora_router.call import Call
from lexora_router.edge.admin_service import AdminService
from lexora_router.edge.router_service import RouterService
from lexora_router.errors import InvalidRequest

_NO_OPTIONS = Options()


class Services:
    """The rpcs, each served by the method of its name, and what a transport asks besides. Raises CallFailed, nothing else."""

    def __init__(self, router: RouterService, admin: AdminService) -> None:
        self.guard, self.router, self.admin = router.guard, router, admin
        self.relay, self.stream = router.relay, router.stream

    def method_of(self, rpc: Rpc[Any, Any]) -> Any:
        """What serves an rpc: `await ...(request, context)`. Raises AttributeError for one that has no method."""
        return getattr(self.router if rpc.service == ROUTER else self.admin, rpc.method)

    async def refuse_undecodable(self, method: str, context: CallContext) -> None:
        """A request whose bytes are no message of `method`, /service/rpc: refused, and counted as any malformed request.

        Questions about the router, and what belongs to other services, are refused without being counted.
        """

        def refuse(_: Call) -> NoReturn:
            raise InvalidRequest(f"The request does not decode: its bytes are no message that {method} takes.")

        counted = method in RPCS and RPCS[method].counted
        await self.guard.guarded(
            RPCS.get(method, HEALTH),
            _NO_OPTIONS,
            context,
            refuse,
            always=not counted,
            limited=call_pb2.Call() if counted else None,
        )

    async def foresee(self, rpc: Rpc[Any, Any], options: Options, context: CallContext, size: int) -> str:
        """Raise CallFailed for a call that would be refused whatever its body of `size` bytes says, and count it then.

        Gives the account of its credentials, empty where none are asked for.
        """

        async def foresee(call: Call) -> str:
            if rpc.counted and self.guard.serving.foresee is not None:
                self.guard.serving.foresee(call, size)
            return call.principal.account

        limited = call_pb2.Call() if rpc.counted else None
        return await self.guard.guarded(rpc, options, context, foresee, always=not rpc.counted, limited=limited)
