"""Where things are kept, behind one small interface: folders and object stores."""
