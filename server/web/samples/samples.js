/** The recordings of the page. Written by `python -m benchmarks.browser.samples`: do not edit. */

export const MODEL = {"name": "nano-5", "parameters": 7326554};

export const SAMPLES = [
  {
    "name": "sentence",
    "title": "A sentence",
    "words": "Very well put, said Sir Ferdinando.",
    "language": "en",
    "credit": "LibriTTS, read for LibriVox, CC BY 4.0",
    "tokens": "/NmIgZymS4vH1K/6g7bX+Zf3B6NC2xNrw+sn46cj9pPuwONT+/fnPpv1/3qudrv0+2a34KkCsCW5sdSw6VYCXV0aqDWOMXtXl7qjN7dlhi2hIKCisCaQZVBmlKaImpgmuVp/Tz4KfgN/m09e3wQLpqesVxhaQkgE3E56bj9Of1s/Wj9fP29OjV9GFxSTIUYjkrBGEo1SRX4cLxxfCGdNfw05X0KrIVLiUuBCYUYTQhACE4aQiYJWB8pICkZRSsa9CiplL8ZpiakKK5VWlkSJhgoCzQaimsp1FjumNEpimoCKEtoStZDMQ6gB6JF4oryZ",
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
    "tokens": "fNicwY2Sz4En+1O1oQZEEfZvV18Pfw5dCwQnkhsDY4AWR1eAF4IfwofQPrDteNkn3eP8+XtfLxtdEWgQzUaL1YO1zyFLEEMZaCFoRKBWdMGIyMzJr8ozTxqKloQuiP8M0EB8BVDQjODdw1cBWxGHWZIJeAVoStiPSSzPCgIb02CDkUEilBW0xETQ3t9GHlwtii0bqgb0ijTWKd46rWCoMgRB1bdEMd9TRzSaJJoHqUGWRYtESgqWSYYVypVGlcUUSm6JLY0ZilmbqYYqlmmJKqYdqRbYAIpAzQblHm+PDm8fLh4+Tk2fRVpOSoxWDoqEqQp9Tj4qf2t/Wy5+TRmbAmYmojjCvYp9SmmlO5Nok62igIgD5okCBzAVcEZkgmDFaMVd3FnlWdRd1FnZKele2RnlLekt2W3cue0snOyeGLis9Iyly69HbK8uxylrFEdER4RWUGZBS4NmEFNhg1K3iX5PTkpaEalFSkDKZ1uS+3dzF2aCqxTy0DuUl7FGN5s4lgQTAk6DkkCLQepKVW9dCMsRe0eVDawBxV5bB1J5omxSX6fJoYmERM6Ij0rSCmMs03Skb4FOl/KLsymjtSPVU90TqaBVMkgi6WNVMmxoqJ4cnWycbOkt3hzdbc1t3G3cTew69PrEQeFh1GHUYdRh1GHUYdRh1GHUYdRx1GHUctGwygPE7vHsx4GuKDyMLc9CI3JCIpLgY5Lj8BF3uTXlHkl+DT5cKoxrDXsNOr9C8yA7kvLVe1F7ErKSMphzNNGxirVWdl96R/lbtVd1VrJ7tbdwsiP3tELyY/HCckJ2kGjArkgunomKiomMV0iZC9gNmC6NLY0riqhSaqU1fAjIlkzzXJWMocqrVX2OHsc5Y+zTrVNuQx2azeAFuV5+b78rf349KbxlztpnuqN5pfG0GUjUzfcCdrtWgn1gkthFRkaJQgRCnYtDLFJ+m7pGeEMyindWdZ512nFactqh2TZlcKQViAAIQYkhpEEZQNmWekKb8VN9g2+CrFKeil0kCZwE2v9aGaZYRRp1CYWRiRGYRUwebKmcpkiZvKZMiaymXJWMleyqSImsVoyhrLpchVxanJlIoZymmJWsZVyZXJXso0Sx3KqCmfciU3a0OJQeXH2ePY4Oh0pURZQdjYNQf4kNS0ICepRQyYKCYmmBugJ2hqrRIzCDeZNVYh6C7VKNgQ/hDUQl3JpEsa2ABEOFgoVBRltWMpVyurH6IeGRVaFlEqIGolbadV51qnGeY6YgjqGqItxghEHUVZiAWCWFmkmRkjfRJtFmkaHAZUg+SHZYVWiRnIpotqi1",
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
    "tokens": "XRZaaJlknWoapdsdxiuT3GvH4hkaDU0Z+m8OLh9KO/IyUBcwAzBTNAFnRGWKYre2ih2dOcZxSraJdooxq2fXzMeW2ROG9dPbQ98HV4UjibWrN0p1yn+boIsn2zUvMFdwQ5FCUUaSR5FHloeSS8WGhpYial4NN05WzjGpdUT5zSpaYoEmGqTeJuoaI4xHz/UQZChdYZllqiaWeUkmjWiegpdj26Obo7uju3erh8KHR8MHg6IfN7uW6gcrcsemUemMnSKaYaq/i4aTPVMdRgpJQtpoWp5fyFNSgiuT9GOlg6OS4Fl+jiaXdYp2ynVOMpZ60+nTWsuj0ibDA8fV11Si0VdyV6BHF4+lRmKPkAJhimdXYIvaQ6BKNo12wjoBdZo6z5Wf12Mo0mWaCy1jLmMeJxpp7laLNV8xTzKZZUoei2hWG44ZWkTJaZZWYhpjianHIgoTTJkLohC+SFlovLhKeX4VKlipVK17tWRmGFl6PaCZ6F0pPSm2qGloamiukGlZfmlppJlojbHeKlcc49xfX2dMd1hKWkIay6UTmZemk8RHyqMA1iPWfYMdmmKKsoU2pXbLOCMNp+qGqIYyibZGela5SnaGfYp1j3WHOpuGV2VKrhLaw2GCMnp6SjKOtZI6i/OHIRMbq2FPoho3izGFKVp6pTaGtlY1ln5OHZ42j1Ejr4L+QyuDO+IimgiJpU5ijXj/Q3cgd2Z7JnKkclCjFpEUiW6qtdo2liWdWZkkVnqaOZoVhmFVdUo+npSeNkE6S3a5pitXDnfeRjMnn/YqtztTwsfG0suSUoVDJGdnjnWKJkIpVxdHZQqiVmKKdhMXY2GGupI0liLpeh5nGmceIxpjDnLvSlM/oz9jr9ce4wrj4JpWqQsuYy1jjlprhbM4mnqqO6bg2bp2dreZkjG6JvUcihGtVV1YnaV6aZZp",
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
    "tokens": "SGqIkZhliJVIZoiySKZIlVh5iGWYuqi2yJSsYYjRaJlYQbTqWJqYlDiVtORo4OrTI0Bzxmcrt7XnpKKkKzXeJmpg3iJqUt5iAo8Lk3f4M7pvoitkOxUnV3/iF4ADABsbH4sOWC8aHg8Prg9JRyoDm0NlQ4fDakMpg6KCxcEaQYGAiYECgcSEQ1CEQICIQqTKDIosVy5DHTtPBuvhe7Z/NNtkm/Lf9ZP5znImEeqmih13CFcOH58X3CYOioZSTy6ODhwNK456yqPL+Us5jqlFdYZl1SlWJ5XEiBaEEBlGSFKUhJgWmJGHrxtKI/gjVCsVG1cflRfUF4AXAAsCH0M6yi4MLkqbzxNMtgtmTesNZsa3CX5Jbge+Rn2KnkuXDoNeV2mz8Goj5RUiVNYDtxATs0v5Ex7HSmJJVZ6ikBVHYYlgC2xCKWMOH9Mdg5/6jKWN0tbWRNmDuYiuB24Hr0W9C76N3gqZB7pEaUbkBmZE1EJsRJBCiIGYRZiFXMaUgFxFqJVYgWiJaJW4mHzgeNh86LjofKR4qHj8PNh46HzoKPg87HjoOPh86Ezk3Ko=",
    "kbits": {
      "opus": 5.5,
      "codec2": 0.8
    }
  }
];
