"""The stages. Each does one thing on the way down and one on the way up; none knows another."""
