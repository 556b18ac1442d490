"""Many sessions on one device: `slots`, `scheduler`, `runner`, `engine`. No asyncio, no thread, no clock inside."""
