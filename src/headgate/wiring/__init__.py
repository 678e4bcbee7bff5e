"""Assembly: settings, presets, who meets whom. Clock, chance and environment enter here."""
