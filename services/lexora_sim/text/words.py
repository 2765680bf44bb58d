"""The raw material of the vocabulary."""

_ENGLISH = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you
were all her she there would their we him been has when who will no more if out so up said what its about than into them
can only other time new some could these two may first then do any like my now over such our man me even most made after
also did many off before must well back through years much where your way down should because long each just state those
people too mister how little good world make very year still see own work men day get here old life both between being
under three never know same last another while us might great go come since against right came take used himself few
house use during without again place around however home small found part word light river stone field table window
water engine token stream signal model layer branch garden letter paper number answer question system reason memory
north south summer winter morning evening bridge harbor market music story teacher student doctor driver kitchen
mountain forest island ocean valley village city street corner circle square silver golden quiet simple gentle broken
hidden open narrow distant early later often always perhaps almost rather quite enough above below inside across toward
build carry follow gather hold learn measure notice offer prepare reach repeat return settle share travel wait watch
"""

_JAPANESE = """
東京 大阪 言葉 時間 世界 今日 明日 新しい 小さな 大きな 静かな 山 川 海 空 花 雨 雪 春 夏 秋 冬 人 道 町 本 机 窓 光 音
色 です ます でした ました という について ため こと もの それ これ ここ そして しかし だから また いつも
とても 、 。 は が を に で と も の
"""

ENGLISH = tuple(_ENGLISH.split())
JAPANESE = tuple(_JAPANESE.split())

# characters that come in two tokens (three bytes each) and in three (four bytes each)
KANJI = "語学電車駅店朝夜星月風森石橋庭紙筆絵歌声友旅船島波雲虹鳥魚猫犬馬鹿茶米塩油火灯"
EMOJI = "😀😃😄😁😊😎🤖🚀🌊🌱🌸🍎🍊🍋🍵🎈🎉🎵🏔🐈🐢🐳💡📚"
