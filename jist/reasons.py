"""What a library's error says, in one line of bounded length.

Of a long message begin and end are kept: it begins with what was done, and ends with the cause,
such as "No space left on device".
"""


def reason_of(error: BaseException, longest: int = 300) -> str:
    r"""The message of an error in one line of at most so many characters.

    >>> reason_of(ValueError("cannot write\n  /a/file:  disk full"))
    'cannot write /a/file: disk full'
    """
    return shortened(" ".join(str(error).split()), longest)


def shortened(text: str, longest: int) -> str:
    """A text of at most so many characters; of a longer one begin and end are kept.

    >>> shortened("0123456789" * 5, 15)
    '01234 ... 56789'
    """
    if len(text) <= longest:
        return text
    half = (longest - 5) // 2
    return f"{text[: longest - 5 - half]} ... {text[-half:]}"
