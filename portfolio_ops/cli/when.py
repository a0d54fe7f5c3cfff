"""Moments on the command line."""

from datetime import UTC, datetime

import click

from portfolio_ops.errors import UsageError
from portfolio_ops.moment import parse_moment


class When(click.ParamType[datetime]):
    """A moment, in any of the ways that `parse_moment` reads."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """A moment from the command line; click reports what is none as a usage error."""
        if isinstance(value, datetime):
            return value
        try:
            return parse_moment(str(value), datetime.now(UTC))
        except UsageError as error:
            self.fail(f"{error.message}; {error.suggestion}", param, ctx)
