"""What lies outside the broker: endorsements, back ends, plug-ins."""
