/** The recordings of the page. Written by `python -m benchmarks.browser.samples`: do not edit. */

export const MODEL = {"name": "nano-6", "parameters": 7326554};

export const SAMPLES = [
  {
    "name": "sentence",
    "title": "A sentence",
    "words": "Very well put, said Sir Ferdinando.",
    "language": "en",
    "credit": "LibriTTS, read for LibriVox, CC BY 4.0",
    "tokens": "/NmEgZxpS0vH1O/6k7bXudP3B6NDmxNrw+sn42dj5pPuwOND6/frPqv1/2qudrv0/2Z3kKkCsCa1saSw/VYGXV0aqDVONXtXV/pjc/dlli2gIaBysDagZVBmlKaImpgmuW5/jz4OfUN/m09e30QLpqesVyhqQkgF3I5qfj9Pf1s/Wj9fP19OTV9KFhSTIUYzk6BGEo0SSX4cLxxvCGdMfw06X0KnIULiUuBCYUYTQhABE4WRiUJWB8ZICkZRSsa5CiplLoZpiWkKK5UWlkSJhgkCzQaSmto0FjumNFpimoCKEtoipZDMA6gR7FF4onyZ",
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
    "tokens": "fNhYwY2Wn4En+0e1oQZEEfZvJ18Pbw4dCwQngi9DY0AWB1aAF0MfwofQfrDtONkn3eP89TtbLxtdEXQUzEWL5YO2zyVLFEYVaCG4RKBWtMCYydzJr8ozT2uKpYQuiP8MoIC4BVDQjNDdw5cRmxGHWUIJeAVoipiPSS3PCgIbk2CDoUUilBW0xUTU3u8GH1wtii0bagb4yjTZKd46rWGoIQSBxbdIMd9TSzRaJJkHqQGWRZdJSgqWTYYVypVGVcUVSS6ILYkpilmbqYYqlm2JOpYdqRbYAYkAzQblbi9PDl8ebh4+Tk2eRVpOWoxWDoqEqQp9Tn4qfxs/Wz5+ThmrBmYmonjCfZp5SmqlO5NoU22iQIgD5okGFzAVcApggmDFZMVd3FnlWdRd2FnZKeVO2RnlLekt1W3cue1sjKyeGLispIipy65XfK8u1yprEEdBS4FWUGZBR4O2EFNhh2a2WX4PTgpJEblESkDKZ0uT+3d3VmaWqxTy1DuUl/FGM5s8lgQTAkpCkkCLQfpGEW9dCMcRu1dVDawBxa9LBlJ5omxSX2LJYYmUCMqIiwvSCmMo07CkL4FO5/GLsyljtSPZU90TqqBFMkwi2aNVMmxkuJ5cnWysbOks3hyZbM1t3G3cXf069PrEQeFh1GHUYdRh1GHUYdRh1GHUYdRh1GHUctGxygPE7vXsw4VuKD2cLcsCI3JCIoLgU6Lj8SF3uTXlHll/DT5cK4xrDXsNOv9C8yA7VvKRdxV7EnKSMpi3NdGxirVadl96h7lbtVt1W3F2tLdwsiP3tEJyY7GCckJ2kGzArkgunomKikWNVkmZC9gNmC6NLYkriqhidqQ1eAiIlkzzXJaMkcurVT2KHss5Y+zT7VNuQw5WzeAGtW8+L78rf349KfxhzttXpmN5pfG0WUjkzfMCdrtWgnlkkdhFRkaJQgRB3YtDLFJ6m7pGeEcyjndadZ512XFacaqh2TZpcKRRiAAYQYkhqEEZANiWdkKrsUN+g29CnFKemU0kCZxF2v9aHaZYRR51CYWQiRFYQUxerKmcpkiZvKZMiaymbJWMheymSI2sVYyhrLpIhVxanJlIoZyWmJKsZVyabJbso1hx3LeDmfciV3akJJQeXD2ePY0Ol0pERZRdjYNAP4kOi0ICdpRQyYOCYqlBuga2hrrRIzGDeZMpYh6C7VKOgQ/hCUAl3JoEsq1AFEOJgoVBRm+WMpVyurH6IuWRYaKlB6ICoVbudV52qnGuY6pgjqGqItxgiAHUZZiAmCZJqomRkTfRJtEmkWGEZUg+SHZYVWiSrItodqi1",
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
    "tokens": "HRZpqGlobToupdsdxiuT3GvH4hlaDU0Z+m8OLh9KO+IyUBcwAzBDOAFThGnKYruiih2dOYoxSaqKdYpxq1fXzMeW2COK9dPbQ98Ll4UiibSqN0pljnuboJsX2zUvMFcwQ1FHkUuSS5FHkodRS8bGhpYmaV8ON05WzjGZdVT5zSpKZoE2GajeKusaI4xHz/UQZChtYZ1pqiWmeQ0mjXifgpej26Oro7uju3erQ4KHQ8Mbg5IfN7uW6gcXcceWQamYnSGeYaq/S0WTPZMdVglJQt5oX15viFNWgyuTtGNlg6OSoFk6jiKXdYZ2iXVOMla60+3TWsuj0ibDA8fVx1SiwVtyZmBGFo+lS2KPkAIhimZXYIvaQ2CKKo12gnYBdZ46n5afx6Mo0pFqCy5jLyMeJxpp7paLNV8xTzKZaUoei2hWG54dWkTZaZpWYlpjiqWHIwpXTJkLohC6SFlovHhKeX4VKmhpZK16tbhmGGl6PaCZqF0oPmW1qGloaniukGlZfmlptKlojXHeKlcd89xfXmdMtxhKWkIay6UTWZeWk8RHitMA1iPafUMdnWKKtpYypXbLPCMNp+qKqIYxibZGeVq5SnaKOYp1i3VHJpuGW2VKqlKaw2GCMnp6TiJOtZI2S7OHIRcaq2FPoho3izSFKUp6qXKGtpY1pn5ODZ42j0Ajr4L+QyvDO+IilgmJZU5mTXjvA3ckd2Z7Jnegc1CzUqFUmW6pseo2lSStaakkZnaaeZkVhlVVdUk6npSZNoE5Wra5pi8nDjfeRTNnn/YqczdTwsfH0suSVkRDJGdnjnWKJkNpVhdXZQqiVmKKcgMXY2GGtoI1liLqeh4nHmMuIx6jDmLrSVM/oz9jn9ce4wfj4NpXbQsuYz1jTlprRfM4mnlqOqbk2bp6ZreaoTW6JrUciiFtWV2YralqWZZp",
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
    "tokens": "TGqIUlhliJVIZkiySKpIllh5mGWYuqi2iFWsZojRaJVYQbTrWJaYlCiVtORo5ObXI0Bzhmcb97Xbpaaka3neZppg3iJqUt5iAk8LU3f0M7dvoitkOxEnVz/iJ4AXAB8HH4seWS8aHg8Pr09KRykDa0Nlg4vDakMpg+OG1cEaAYKAmZECgcWEU1CElEGIAqTKCIocFx5DHTtOBuvhf/ZvNNtgm/Xf9pO5znImEe2mhh13CFcOH48X3CYOmoZSTy6ODhwNK466yqOL+Us5jqlFdYVm1SmWJ5WEiBaEUBkGSFKUhJgGmJDXrwtGJ/QnFCsVG1cflRfQF4AXABsCK0M2ii4MLkqXzhNMtgtmDacNZsa3CX6GbgduRn1Knk+XDoNNl2qz8Kon5RkmVNUDtxATs1v5Ex7HTmIKVV6ikBVHoYlgCyxCKlMNH9Mdg5+6jKGJ0srmQNmHuYmuB24Hr0W9C72dngqZB3lEZQnkCrZF1IKsRKRCiIGYRViFrMaUgFxFmJWYgaiJaJW4mHzhaNh85HjoeOh46Hi4ONg4qDjoOPg87HjZOPg8qFzUnKo=",
    "kbits": {
      "opus": 5.5,
      "codec2": 0.8
    }
  }
];
