"""What outlives a run: the agenda of what is to be done, the folder, requests that come to it."""
