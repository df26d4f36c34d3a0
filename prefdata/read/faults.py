"""Error for a row that cannot become a record: its code and a one-line reason."""


class RowError(Exception):
    """Error in one row; the reader turns it into a row of REJECTED.

    R201 unparseable · R202 not UTF-8 · R203 lone surrogate · R204 NUL · R205 not a finite number ·
    R206 a number too long to keep · R207 duplicate key · R208 too deep · R209 not an object ·
    R210 wrong type · R211 missing or null · R212 too long · R213 part of no pair · R214 repeated
    header · R215 spaces before quotes · R216 too many values; PD207, PD301, PD303 and PD306 if a
    layout cannot form a pair.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{message} [{code}]")

    def __reduce__(self) -> tuple[type["RowError"], tuple[str, str]]:
        """Rebuild from the two parts, so that errors can be pickled between processes."""
        return type(self), (self.code, self.message)
