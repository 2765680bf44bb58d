"""What replicas of one gateway share: credit of rate limits, slots, health, records. One port, and the programs behind it."""
