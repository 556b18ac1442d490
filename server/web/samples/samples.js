/** The recordings of the page. Written by `python -m benchmarks.browser.samples`: do not edit. */

export const MODEL = {"name": "nano-4", "parameters": 7223890};

export const SAMPLES = [
  {
    "name": "sentence",
    "title": "A sentence",
    "words": "Very well put, said Sir Ferdinando.",
    "language": "en",
    "credit": "LibriTTS, read for LibriVox, CC BY 4.0",
    "tokens": "7MmEgay6S4vHlJv507bH+df3B6ODmxNrw9sn52dj9lPqwONT+/fnOpf1v3budrv062a3oGkDsBW5sdSw6VZCXV0aqDWNMXtXV/Zjd7tlhimhJKBisDagZVBllKKIilhWuZp/Tz4OfgN/m19enwUH5qusV1iaQkkF3I5qbj9Of1s/Xn8fP69OXF9GFxSTIUYjlrBGIolSiX4dLxweDGdNPw06T4LbIVLiUuBCYUYTghACE4WRiUFWB4ZIBkZBSsatCiplLsZpiWkKa5UWlkSJhgUCzQaSmso1FjumNEpimoCKAtkStZDMQ6gC2FF4onyZ",
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
    "tokens": "vNhYxYzSz4En+0e2tQZUEeZvU18Pbw4eCwQjkhtDY0AWB1eAE4IbwoeAPrDteNkn3ePspXtfPx9tEmgQzEaL1UO1zyFLFEYVaBF4RKBGtMFIyMzJnsozT1uKlkQ+jL8M4EB8AZCRnODdw1cRV1GHWZNJeAVoStyPSW2PDkIb02CDkUEipBWwxUTU3t8GH10tih0bqgb4ijDWKd4qrWCoIgSB1bcEMd9TRzSaJJkHqUCVRYdFSkqiTccVipVGkMkURWqILYkZilmLqYYqlm2JKqYdqQaYAIVBzQbhHh9PDm8fLh4/Tl6eRUpOSoxWToqEqQp9Tz4af2t/Wz4+TRmbAmYm0jjCvUp+SiqVK6NoU62igIgD5kkSBzEVsAZkgmDFpMFZ3V3lWdhd1FnZaelN2RnlLekt2Wncud5snLydWLis9Iypy66HrK9u1yorFEdEh4FXQGZBS4NmEFNxh1K7iH5PT0paEK1FSUDKY0uT/7ezFmYCuxTiQDuUl7FGN1t4lgRSAkqCkkCKQepKEW9dCcsRq5eVDawBxZ9LB1K5oqxiX6PJooiURMqJi0vSSmMs0zSkb4EOl7GLsyljuWPaU90TqaCVMkgi7VNVcmxUuJ9cjWycbekt3h3Zbd1t3G3cTe065PrIUeFh1GHUYdRh1GHUYdRh1GHUYdRh1GHUYtGwygPE7vHsx4WuKD3cbc8BI3JCIoLgYqLj4CF3uTXlHlk+DT5cK51rTX8NOr+C9xA3kvIRexF3ErJTMphyNNFxirVadl96h/lbtVu1WrJ7tbNwsmP3tEKyYvGCckJ2kGjArkgujomKioWMV0lZC9gNmC6NLY0riqhSKqU1uAiIggzzXJaMocrrVX2OHotpo+zTLVNuQx2azeAFtV8+L78rf749KfxlztpnqqN5pfK0FUjkzOMCZrtVgn1gkpgFRgWJAgRB3YtDLFJ+n7pGeEdxindVtZ512nFKctqh2TZpcORRiAAIQYkhlEEcQNiHekKasVN+g2+CrFKell0kCZwE3f9KHaZYRRp1CYWQSRKYgUxObKqcqkiZvKZMiqySbKWMgez6SI1sVkyhrLpcllxenJlcoZyqmJGsdVyZXJbsokiw3KqC2eciV3ZwOKQenX1ePY4Oh0qURZQdjYNQP4kNS0ICepRQyYKCIqmBuQK2xqrRYzGDeZNlYh+C7VKNgQ/hCUAm7JoIsq2AFEOFgoVBRl+WMtUyubH6YuWQVaFlE6ICoVLadV52qnGuY6ogjqGqYtxgREHEVZiAWCWFmkmAQjfRJ9EmkaHAZUg+SHZYZaiRXIZotqi1",
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
    "tokens": "DRZZaJlknSoppdscxiuT3FvH4hkWHU4J+m8OLh9Ke/IyUBNgAzADNBFnRGqOYvq2Sh3dOckxSraJdcpxm2fXzMOW2ROK9dPbQ98Hl0UTybSrN0p1in+boIcj2zUrMFtwR6FCUUeSR5JHkoeSi8WGgpYmak4dNw5TzjWpdUT5zSpacoE2FaTeJuoaI4xHz/UQlChdYp1mrhameU0mjWSbgpej26Pbo7uju3Orh8KHR8MHg6IfN7vW6gcncsemUtWMnSKaYa5/j4WjPFNcRgpZQtpoWl5fyFNSQiuT5GO1g6OSoFlqjiaWdYp2zXVOcpZ6k+jDWsuj0ibDA8fV01Xi0VsyVnBGF4+hS2GPkAJhimdHUIuaQqBKZo12xjoCdZ4635afx2Mk0pVqCy5jLjMuJx5l71aLNV8xTjKZZVYeimhWG44cWkTJaZpWYhpjiamHIgpTTJkLohCuSEoo7HhOdm4VJViZVK1rtaRmGGk6PaDJqF0pPRi1pG1oamiuVHhVfmV5dKlozXHeKldc49xfn2dcd1hKWkIai6VTmZdSk4WDyqMAxiPWfYMdnWKKslUypXbLPCMJp+qGqIo2iXZaeWa5WnaKPYp1z3WHJYuGW2VKrhLbx2GCMnp6SjaOtVY2i/OHIRMaq6FPois3i3GJKVp5qTaWtlY1lr5ODJ46j1Aj74L+Qy+DO9MilgmZZU5hnXzvA3ckt6J/JnJgc1CjEpEV2W+pZao2miSdWqkoVTaaOZoVhmFFdYo7npSdNoE6Sna5ZitXDjPeBjNrm/YbdzuXw4fG0suSUoRCIGMnjrWKJYIpFxdDdQriVmKKNgMXY2GCuZI1liLpaR5rXmMvIx5jDnPvSlM/oz+jr9cu4wvj4NqWrgouYz1zjhprQqM4mXpqeqbg2Xp2dqaZkXF6JfUcilGtWV1Ynql5aZZp",
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
    "tokens": "SG6MUZhmiJVIZpy2XKZYlVh5iGGYuqy2iFWsZYjQaJhoQLTqWJqolGiFuOSo4OrTJ0Czhmcbt7bnpJJkK3nOZmpg3iJqUt5hQo8Lk3f0M7tv4itkKxEnVz/jF4ATABsbH4samSsaHg8frg5JRykDq0Nmg4vDKkMpk6PCycEaUYKAiNACgcWEU1CEkECIQqTKCIosRi1DLTtOBtvRe7ZvNNsgn7Lf9ZP5zrNmEdqmhh13CFcOG58X3DZOioZSTyqODhwNG456yqLK+U86jqlFdYpm1SmWJ5WEiBaFEBlGSFKUhJhWmFDXrxeLJ/gjVCcVG1Yf1RfUF4AXQBdBH0M2yi5MLkqbzhNMtgtmDacNUca3Cb5KLge/Rn1KnkuXDoNeV2nz8Gpn6iUiVNYDtxAjs0v6Ex7LCmJJVU+ikBVHoYkgCixBKWMNX9cdg5+6jKWN0drmRNmDtYiuB24Hr0WtC76N3gqdB7lEaUbkCrZF1EKsRKRCSIKYRZiGbMaUgExBqJVYgWiFqJW4lHyhqNi8pLjoeKRopHi4fNR46HzUaPR87LzYePg8qFyQ7Jo=",
    "kbits": {
      "opus": 5.5,
      "codec2": 0.8
    }
  }
];
