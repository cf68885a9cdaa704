"""A local stand-in for a Microsoft 365 tenant: sign-in, directory, mail and change notifications."""
