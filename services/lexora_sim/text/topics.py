"""A rule that stands in for a model that sorts tasks: a list of words for each kind. No model, and as good as its list."""

from __future__ import annotations

from typing import Any

# Kind of task: the names that it may go by, and words that speak for it, in lower case, a bar between two.
_TOPICS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("code", "coding", "programming"),
        "python|rust|javascript|typescript|java |golang|sql|bash|regex|css|html|docker|function|method|script|"
        "compile|refactor|stack trace|unit test|bug|api|class |git |exception|endpoint|関数|スクリプト|コード|実装|"
        "バグ|リファクタ|コンパイル|メソッド",
    ),
    (
        ("reasoning", "math", "logic"),
        "prove|proof|how many|probability|solve|equation|puzzle|deduce|step by step|integral|what is the chance|"
        "if every|percent of|証明|確率|方程式|何通り|解いて|求め|論理|いくつ",
    ),
    (
        ("translation", "translate"),
        "translate|in english|into english|in japanese|into japanese|in french|into german|in spanish|say this in|"
        "how do you say|翻訳|訳して|英語に|日本語に|英語で|日本語で|和訳|英訳",
    ),
    (
        ("summarization", "summary", "summarize"),
        "summar|tl;dr|shorten|key points|main points|boil|condense|in one paragraph|the gist|要約|まとめ|要点|"
        "短くして|三行で|3行で|概要|手短に",
    ),
    (
        ("creative", "creative_writing", "writing"),
        "poem|story|haiku|lyrics|slogan|tagline|screenplay|fairy tale|limerick|fiction|novel|物語|詩を|俳句|小説|"
        "歌詞|キャッチコピー|童話|短歌|台本",
    ),
    (
        ("extraction", "extract"),
        "extract|pull out|list all|list every|as json|into a table|fields|invoice|find all|dates|抽出|抜き出|取り出|"
        "一覧に|表にして|jsonに|jsonで|請求書|項目",
    ),
    (
        ("vision", "image"),
        "image|photo|picture|screenshot|diagram shows|in the scan|look at this chart|画像|写真|スクリーンショット|"
        "スクショ|図に|イラスト",
    ),
    (
        ("general", "chat"),
        "hello|thank|recommend|what should i|tell me about|advice|how are you|difference between|こんにちは|"
        "ありがとう|おすすめ|教えて|アドバイス|どう思|違いは",
    ),
)
_UNKNOWN = "unknown"


def sorted_task(schema: Any, messages: Any) -> dict[str, Any] | None:
    """Return the answer to a question for a `task_type` out of an enum, None when the schema asks for something else."""
    kinds = _kinds(schema)
    if not kinds:
        return None
    text = _last_text(messages).lower()
    hits = {kind: found for kind in kinds if (found := [cue for cue in _cues(kind) if cue in text])}
    if not hits:
        return {"task_type": _UNKNOWN if _UNKNOWN in kinds else kinds[0], "confidence": 0.1, "reasoning": "No word is known."}
    ranked = sorted(hits, key=lambda kind: -len(hits[kind]))
    ahead = len(hits[ranked[0]]) - (len(hits[ranked[1]]) if len(ranked) > 1 else 0)
    words = ", ".join(cue.strip() for cue in hits[ranked[0]])
    return {"task_type": ranked[0], "confidence": min(0.5 + 0.2 * ahead, 0.95), "reasoning": f"Words found: {words}."}


def _kinds(schema: Any) -> list[str]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    asked = properties.get("task_type") if isinstance(properties, dict) else None
    kinds = asked.get("enum") if isinstance(asked, dict) else None
    return kinds if isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds) else []


def _cues(kind: str) -> list[str]:
    return next((cues.split("|") for names, cues in _TOPICS if kind.lower() in names), [])


def _last_text(messages: Any) -> str:
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    return content if isinstance(content, str) else ""
