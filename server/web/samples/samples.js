/** The recordings of the page. Written by `python -m benchmarks.browser.samples`: do not edit. */

export const MODEL = {"name": "nano-2", "parameters": 7223890};

export const SAMPLES = [
  {
    "name": "sentence",
    "title": "A sentence",
    "words": "Very well put, said Sir Ferdinando.",
    "language": "en",
    "credit": "LibriTTS, read for LibriVox, CC BY 4.0",
    "tokens": "7NVQkeipR0vH1Yv517bTuZf3B6OTaxOrw6tn45tT9pPqhOdDt+fnOpu1u3q/db+wq2a34KkDsBa5caSw+VdCrVwarTVONX9Xp/pTc7tlkh2hMLCysCWgZlBllKaEmphmqFp/Tz4avgN/Sx9OrwQXtqvtVyiqQ0kB2I5qa39Of1s/Tj8bP2uOTU4CGxSTIUZylrBWIolSRX4dHxwuCGtMPw09H4KrIVaik+BTYUYTgiACF4KhiUIGB8ZEBgZRSsZpCiplLtdphikKapUq1kWFggUCjQeSmdp1FnumNE5iptCKAYlTupDMQ5QCqEF4oriV",
    "kbits": {
      "opus": 5.7,
      "codec2": 0.8
    }
  },
  {
    "name": "voices",
    "title": "Two voices",
    "words": "But you must not eat with your cap on your head, she said. / For a full hour he had paced up and down, waiting, but he could wait no longer.",
    "language": "en",
    "credit": "LibriTTS, read for LibriVox, CC BY 4.0",
    "tokens": "vORU0ozRz4IruwO1tQZQEfZfV58frw4dCxQjQh+DIwAWB1NAE0MbwpPAP3HcON5j3ef8uXtbLh8tAqgQzEaL1UO1zyKPFUcVaBJ4RJBGtMGUyczansozT1uKkoQ+jO8MoIC8BFDRnODNw1sBW0GHVYIVeAZkSqiPSW3PDUMb0yCDUkEilBW0hUTU7t8CXx0tji0begL4jjDKbd4+rSTsIQSB1bcFMp9DRzCaIFkCqUCWhYdESkqiDYcFy5YGkcUVhipIKYkoilqf6UYpqXmBPaoqpRbUAYZByQLhXl9PDm8fbw0/Dl2fBUpOioxGDoqF6Ap5Tz0bPxs/Wz5+DQWbAiYn0jjTfQZ5WSrlOpNoU3nigIgD5okCBzAhYAZkh2DFpMVZ2RnlWekZ2VnZafkN1RnlLeU82W3Yvd4s3LydGLis+Iypy19LvG9tyyprFIdFh4VHkGZBS4NnEFNhh2K2GT5PT05KAa1FSkDLp0uT/3Z3EmZWtxDy1D+QU6RFc5s4lgRTAkvDokCLgepLEG8dCdsQZ5uWDGwBxa8PQ4apsrymLqLJYoiUBIqFi0rTimcs0zCkL4EOl7LbsxljdRPaU9kTqmCVMlgi3pNFcmhQqJ9snmysLOot3izuXc1t7W3dTf058P3YUeFg0WDUYNRg1GDUYNRg1GDUYNRg1GDUYdBw1SLQ6fbox1S/LD6MKM9BM3KSIpLgYqLzZFGy+THlLhk/HT4cL51rHX8NOr+C9yA7lfPRuxF7FrLXclS3JNWy5/VKcq99h/mb9Zb1q7J3ubMgtiPzNJGys7HTcoJ1kCjArkgunomOioVNp4mVCtQNiG6NLoori6QWKuQxeAzIhkjzXJKMoc7vFX2KHstpY+zTLWNuQx2WzeAF6W8+X39bP648KbwIzssbZXN6rfKwGUSkzdcCt79WwzkkkuhFRkGJAgSB3UpDKFM6nrpWeANyjrdVcVt53rIacqqh2DFucKBVxAAIQYkhpIEYANjGqkKrsVN9gi+TrJItlk4kDZxE3e8KHaZIhRp5CYWRiRFUhUwNbKms6kiZvKlMiWymbJWcgLz6SJlskEyRrLlclWyZrJhsoGylbKGstGyobJSs5liw7KuC5fsil3ZwNKQObH5ePY4Nm46YiYAcjYNAe4kNjwISOpRQyoKCYqiCeUK2xaeBc3FDdJMlch7C7CKdgQ/lDYA17JsIsq2ABUOFgolBhptWMeVyvrH6IeKRpWJVUqICoVKqNV96qnKuYq4lnuJqYsygSEHEVajAiCVFmkmBgjbiJtFloWHAZYQ5iXpYZqiRbIYstpi1",
    "kbits": {
      "opus": 5.6,
      "codec2": 0.8
    }
  },
  {
    "name": "street",
    "title": "A noisy street",
    "words": "In short, he becomes a prominent figure in London society, and if he is not careful, somebody will say so.",
    "language": "en",
    "credit": "LibriTTS, read for LibriVox, CC BY 4.0; the traffic is synthetic",
    "tokens": "TRaKYIYkzTcppssUghqT3BvH4gpWHY4Ivm8PLQ8Ke+IyUCMgAzATNBFnhaWKIvu3hh2daYkxSruKcYpxq6vHjMel6ReK9MdrQ98H04UTlXCfM0ZpintvYNciyzUvMGdxU2FDooeGi5KHoouGi4XGgZo3ZkoON08SijGtdVG5jSZecYI2FqTNIuoeZ1wDz+URlSVdIk1lrhKWeQ1m3XiLgluj27Oro7ujq3Orh9MDQ8MHw5IfY7vm6wcnYcemUsJIjSOeYa67T0XTPZMcVgqVgt5oTlufiGNRgiqTpDOp06KSYBlpWhaadZZ2zXFOclZ+h+jTqtti0ybHA8Pkg1Hj0VsyYzAXF4+gRzKOUUdli6ITUM+ZU6FGJo4mijoRdZ56n1afh6co46CqCy5SLiMuJi9p34KLNm81XzKapAoui2gKG55cS0HJaapWIlpjiqqHNg5TTIoKoRDeRUoVnGpOdm4VJhiOVY1ntahmGUkrPqGJqF04LhWlpG1VnjRaUWkZbiVqaK1lzXGOFltd4+xbnqect2hKWkIXi6UTWZeik4VHyqcE0iLXfUMprlJKtpkxoXaHOGcO5+lHmIo2iXKKeWa5TnaKOop1y3mLNpvKV2VKbiaah2SCMrq6jnJettc6S+PHdWMqm6JPoio6i3GZOq65aTdaspoxmr5eDa42j1Enn4P+Q2/TOuNylgmFZU5mjXnfQjckd6W/pragd1SjUqEQ2V+qoe42qiGOWpkoWjabedoVimFVOYo6m4WNNpI5DnK5pjtXHnOfBiNm6/obMzeXw4fDkstSU4WHIGcrzvVKJodkFxtXZUqiVmLLMgcbY2HHuVI06ibqZR5nLiMvIy+TDnLvSVc+sz+jb+Yt4xvj4JdGrQsuIz5jThpvQqM0mWquu6KgiT16eqpapmV6NfkMiiWdVk1YnaVqGYpo",
    "kbits": {
      "opus": 5.1,
      "codec2": 0.8
    }
  },
  {
    "name": "mandarin",
    "title": "Mandarin",
    "words": "广州市房地产中介协会分析",
    "language": "zh",
    "credit": "AISHELL-1, Beijing Shell Shell Technology, Apache 2.0",
    "tokens": "TK6IoZhpiJSIYZy2WKlYlVi5mJWYuqi22FTYppjQZJmYgXTaWJlolGiVeORo4PnTJwBzRqdbt7rzZGNkHzbepmpQ3iKuUupSQpsPF3e4I7dv4ydkOxEnEz/SJ4ATABsbH8seqCsaDg8f7g8OSykDbwOig4vDaUMp06OCmMErUoLAiNAT0sWAA1CAgECIAqSLSIotQi1DHTteBuvVe/JrNdskr/af9pP1yrF+EdpShR16CEcOG58D3DYOhcYSTyqPHggNG4p6iqKKuYs6zrgGcopp1SmZI5WEiBaUUBkGSIKUhIgG2ICKrwuKJ/gjIDcVC1cv1RfQG4AXABcCH4Myyi4MLkqbzhNYdg+mHpcNYsr3BnpJXgOvQn0GTUunDYMel63z9Goj5RUmVNUCtxATs1v6Ex7HWmIKpU9ihBFHoZpgCixCOVMOW6sdw666jKVd0trTANmDtUheA25DrwVtB75JjgqeA3lFaUnkSqpF1IJcAJRCiIGUQZiGXMWUgUxBaIGIhWiFaJWs1HyhbNRspGzZaKRokWjkbJRoqGyUaPRs2HzUfPhs5FyQnIo=",
    "kbits": {
      "opus": 5.5,
      "codec2": 0.8
    }
  }
];
