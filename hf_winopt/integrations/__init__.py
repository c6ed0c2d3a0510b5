"""The only part of hf_winopt that knows Hugging Face's libraries. It imports none of them by itself."""
