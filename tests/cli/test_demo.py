# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway demo`, which is `make demo`."""

from __future__ import annotations

import re

from tests.cli.program import run

ENDING = r"stop · \d+ \+ 60 tokens · first token \d+ ms · \d+\.\d tokens/s · \d\.\d\d s\n"


async def test_it_streams_one_answer_and_says_how_to_go_on_whatever_the_environment_says() -> None:
    done = await run("demo", PORT="no-port", VLLM_URL="http://127.0.0.1:1", LOG_LEVEL="loud", RETRY__X="1")

    assert done.code == 0, done.err
    assert done.out.startswith("> Tell me a story.\n one night a small star")
    assert "make llm-gateway\n" in done.out
    assert "grpcurl -plaintext" in done.out
    assert re.fullmatch(rf"simulated vLLM at http://127.*\n{ENDING}", done.err)
