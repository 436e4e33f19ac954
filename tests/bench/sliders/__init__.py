"""What a step of a Concept Slider costs, from words and from picture pairs."""
