"""What the items' texts are made of: dirty, as real ones are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

BLANKS = ("", "", "", "", " ", "\n            ", "\t", "  \n")
PEOPLE = ("董桥", "R. J. Palacio", "三浦健太郎", "[奥地利] 西格蒙德·弗洛伊德", "张小娴", "笛安")
SENTENCES = (
    "这是一个漫长的故事，从一座小城的雨季开始，到另一座城市的冬天结束。",
    "“他说：‘走吧。’”她只是点了点头，什么也没有回答……\r\n",
    "作者以冷静而克制的笔触，写出了一代人的迷惘、挣扎与和解。\r\n\r\n",
    "\t「蚀」还没开始就群魔乱舞，『三浦』的意思是格斯的战斗力是临界点么？",
    'He said "it\'s fine", and ‘left’ — «voilà» <b>&amp;</b> \\o/.   \r\n',
    "作者我snm了😭你这么对格里菲斯👨‍👩‍👧！",
    "详见 https://book.douban.com/review/5315381/?from=a&b=c#d 和 http://t.cn/zOabc 。\n",
    "读到最后一页的时候，忽然想起十七岁那年夏天的风。    ",
    "译本不算好，太多老掉牙的译名了（比如奥迪帕西情结），专名翻译上也大有问题。\r\n　　",
    "教科书一般的费脑，奇怪的长句子加上大篇幅的术语。\xa0",
)


def text(rng: Random, most: int) -> str:
    """A long text of up to so many sentences."""
    return "".join(rng.choices(SENTENCES, k=rng.randrange(1, most + 1)))


def within_blanks(rng: Random, word: str) -> str:
    return rng.choice(BLANKS) + word + rng.choice(BLANKS)
