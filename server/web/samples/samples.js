/** The recordings of the page. Written by `python -m benchmarks.browser.samples`: do not edit. */

export const MODEL = {"name": "nano-3", "parameters": 7223890};

export const SAMPLES = [
  {
    "name": "sentence",
    "title": "A sentence",
    "words": "Very well put, said Sir Ferdinando.",
    "language": "en",
    "credit": "LibriTTS, read for LibriVox, CC BY 4.0",
    "tokens": "/NmQkZipS4vHlZv507bD+Zf3B7OTaxNrw+tn46dj9pPqwOdTt/fnOpv2/3rudru062a34KkTsBZ5caSw+WdCbU0aqDZOMX9Xl/ZTc7tlgi2hJKCisCagZVBllKaIipgmqZp/Tz4KvgJ/Wx9OrwUHpqusVxiaQ0kF2I5qaj9Of5o/Xj8PP69OTE4GFxSTIUYjl7BGIolShX4dLxwvCGtNPw05T4KbIVKiU+BCYUYTgiACE8aRiUIGB8ZIBkZRSsZpCiplL8pphmkKelUa1kWFhgUCjQaS3so1FnqmdI5iltCKAclStZDMQ6QB6EF8pnyV",
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
    "tokens": "vNhYxYzBz4Iru0e24QZUEeZvV18Pb04dSwQjUhtTY0AWB1eAE0Ibw8fAPrDteN4j3ePsuXtbLx8tEmgQzEaL1UO1zyKLFEMVqBJ0RKBGtMFEyMzNnsozT1uKlkQ+jL4MoIB8AVDQnODdw1cBl0GHVYMJeAZoSuiPSWzPDkIb02CDkUEilBW0xUTU7t9CXx0tmi0bugb4izDaKd46rWCsMQiB0bcEMp9TRzSaJFkD6UCWQYdFSkqiTYcVypUGkckUiS6ILYkZilmL6YYplmmGOpYtqRbYAYZByQbhbi9PDq8fbh0+Tl2fBUpOioxWDoqEqAt5Tz0aPxs/Xz5+TQmbAhYm4jzCfUq9SiqlO5NoU73iwEgD5ogCBzAVsAZkgmDFpMFZzR3ladld1VnZaflNxVnlLdkt2Wns+d4sjLydGKi8+Eyly69HrK9uyyprFEdFh4FHUGZBR4NmEFNhh1K2WX5PT05aQK1FSUDKV0uT73ezFmYSuxDyRHuUl7BGN5s8lkRTAkqCkkCKgepKUG8dCdsQZ4eVCGwBxZ8PQ5a5orxib6PJooSURMqFi0rSSmMs0zCkb4EO17KLsyljeSPaE8kTqqCVMkwi6WNVcmhUqJ9snmycbOkt3ijdXd1t3H3dXfw58L7EUeFg0GHUYdRh1GHUYdRh0GHUYdRh1GHUYdBx1SPQ7vXYx4S/KD2MaM8BIzJCIpLgYuLjsBJ2uTXlLlk/HT5cL51rXX8NOr+C9yA7lfJRexF3FrKSMpi3NNGy1vVbdp96h/lbtVu1mrJ3tLMgtiP3dIKyovXDckK1kCjArkgunomOioVNl4WZC9QNmG6NLY4riqhWKpQxfAzIggzzXJaMocqrVX2KHotpo+zTLWOuQx2azeAFtW8+b39rP749GbwVzssrZWN5pfK0GUiUzOcCt79WgjlgkthFRkWJQQSB3UtDLFJ6n7pGeEM2jndWdZp12nEacpqh2TFpcKRRiAAIQYkhpEEMQNiGdkKq8VN9gy+SrFJellokCZwE3f9aGaZIRRp1CYWRSRKUhUgObKqs6kiVvKZMiqymbJVMgfz7CIqsZUyRrL5YhVxerJlcoZyqXJKsdVypHIXso1ix7LuC1fciVzZwOKQebH1ePY4Nm0qEhZQcjYNQf4kNTwISOpRQyYOGIqiBeUK2xqbBYzGDeJMlch7C7RKNgQ/hCZQl7JsIsp1AFEOFgoVBRl9WMtVyerG6IuaQUWJVVqICoVfqdVp2qnGuY6okjuFqYsxgSEHUVajAmCWFmknQQjbRJtFlkaHAZYg+iHZYZaiiXIYspqi1",
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
    "tokens": "DRZZaJlojXop5csYhi6T3FvH4glWDY4I+m8OLQ9Ke/IyUBMwAzATNAJnhKqOYvu2Sh2deckxSruKcYpxq6fHjMeV2RfK9cebg98Hl4VTiLTvN0ZminurYIcXyzUrMFtxU6BDoYeSh5JHkoeSh8XGgpYmakoNN05SijGZNZX5iSpaNYI2FqTOJeoaI4wDz+UQlSmdYk1lriKWOU5mjXSLglej26Obo6uju3Orh9JHQ8MHw6Ifd7vW6gcnccemUtaInSOqUK6/j0WTPFNcVgpVQtpoSl6fyFNWgiqT5GOlk6OSYBmujiaWdcZ2zXROcle6h+jDmsti0ibDA8fk01Hj0VsylnBXF4+kRzKPkQNhimZDUI+WQ6BGJo1mxnoBdZ46n1Kf12Mo46GqCy6SLyMuJx5l31aLNV8xXzKaqAYei2hWK44cSkXOVZpmIlpjyqmHIgpTTJkLoRCqSEkU7LhOdm4VJmhaFK13taRmGZk7PqCZ+A0pPii1pC1YbjiuUHhlbiV5ZK1ozXHOJldd49xbnmdMt2hKmkIai6UTmZtSk4VDyqcQ1iPafUMtrSKKspoxpXbLOCMO5+qHmIo2iXZLeWa5SjaKPop1y3WHNYvGm3VKrhLbx2GCMnq6SjKOtZI2S/PHdVMaq6JPoho2i3GFKV55qTdWslY1ln5ODa42j1Aj74L+Q2uDO+MilgmJZU6mXXjvA3ckd6W/ZnJhd1CjEpEV2V9pteo2mSWdWZkoZjZbedoVhmFFdYo6n5SeOoE6SnK6pitXDnPeBjNr2/YbMzuXw4fHlsuSU4RHIGMnjrWKKYJlFxdTZQriVmLKMgMXY6GCuYJ0miLpaR5rHiMvIxqjDnLvSlc/sz+jb9Yu4xvj4JZWqgsuYz5njhpvQqc4mWmqe6agyXp2dauZlnJ6JfkciiGtmU1Ynal6WpZo",
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
    "tokens": "TK+IYYxmjIWMYoy3TKZIlVh5iFWYuqi2zFTcZpjQWJlYQbTqWJaolCiFeOho4PrTJwBzVqcbt7bnpKNkL3nOZ2pg3iJqUu5hQp8LU3f4M7uv4ytkKxAnUz/jF4ATABsXH8samCsaHg8f7g9OSykDa0Nig8vDKUMpk6PClcEaUoLAiNACwsSEQ1CEgECIA6SKWIosRy5DLTtOB9vRe/ZvNNskn/bftpP5zrJ6Edpihh16CFcOG58T3DYOloZSTyqOHgwNG4q6iqPK+Us6jqlFdYpl1SmZI9WEiBaEEBkGSJKUhJhGiICXrxdLJ/gjVCcVC1cf1QfQF4AXABcBH0M2yh5MLkqXzhNMtg9mDqcNYsa3Cn6GLge+RX1KnkuXDYNep23z8Goj5RUiWNUCtxAjs0v6Ex7HSmIKZV+ikBFHoZlgCixCOVMNX6seg5+6jOWN0srmANmDtYieA25Dr0WtC76JngqeB3mEaUnkRqZF1IKcBKRCiIGYRZiCXMWUgUxBqIWYgmiFqJWslHyhaJR8pHypfKRopXi4fJR4uGyUKLh87LyUePgsqFyQrJo=",
    "kbits": {
      "opus": 5.5,
      "codec2": 0.8
    }
  }
];
